//! The dashboard's navigation: a line for each entry.

use serde::Serialize;

/// An entry.
struct Entry {
    label: &'static str,
    address: &'static str,
    /// The symbol of `parts/icons.html`.
    icon: &'static str,
    /// Whether only administrators of the platform see it.
    administrators: bool,
}

const fn entry(label: &'static str, address: &'static str, icon: &'static str) -> Entry {
    Entry { label, address, icon, administrators: false }
}

const fn of_platform(label: &'static str, address: &'static str, icon: &'static str) -> Entry {
    Entry { label, address, icon, administrators: true }
}

/// In the order in which they are shown.
const ENTRIES: &[Entry] = &[
    entry("Apps", "/", "apps"),
    of_platform("Nodes", "/nodes", "nodes"),
    of_platform("Cluster", "/cluster", "cluster"),
    entry("Organization", "/organization", "organization"),
    entry("API keys", "/account/keys", "keys"),
    entry("API reference", "/docs", "docs"),
];

/// An entry as the frame shows it.
#[derive(Debug, Serialize)]
pub(super) struct EntryView {
    pub(super) label: &'static str,
    pub(super) address: &'static str,
    icon: &'static str,
    /// Whether the page is this entry's or below it.
    current: bool,
}

/// What somebody at `path` sees.
pub(super) fn entries(path: &str, administrator: bool) -> Vec<EntryView> {
    let below = |address: &str| match address {
        "/" => path == "/" || path.starts_with("/apps"),
        address => path == address || path.strip_prefix(address).is_some_and(|rest| rest.starts_with('/')),
    };
    let view = |entry: &Entry| EntryView {
        label: entry.label,
        address: entry.address,
        icon: entry.icon,
        current: below(entry.address),
    };
    ENTRIES.iter().filter(|entry| administrator || !entry.administrators).map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current(path: &str) -> Vec<&'static str> {
        entries(path, true).into_iter().filter(|entry| entry.current).map(|entry| entry.label).collect()
    }

    #[test]
    fn one_entry_is_current_on_its_page_and_below() {
        for (path, label) in
            [("/", "Apps"), ("/apps/shop/logs", "Apps"), ("/cluster/sagas", "Cluster"), ("/docs", "API reference")]
        {
            assert_eq!(current(path), [label], "{path}");
        }
        assert_eq!(current("/clusters"), [""; 0]);
    }

    #[test]
    fn the_platform_is_for_its_administrators() {
        assert!(entries("/", false).iter().all(|entry| entry.address != "/cluster"));
    }
}
