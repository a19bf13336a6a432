"""How many connections to PostgreSQL the nodes of an installation may open, and whether the server lets all of them in."""

import os
import re

FOLDER = os.path.dirname(os.path.abspath(__file__))


def listed():
    """The domains of src/domains.rs, and whether each runs on every worker thread rather than on one of its own."""
    with open(os.path.join(FOLDER, "../src/domains.rs"), encoding="utf-8") as file:
        entries = re.findall(r"name: callboard_(\w+)::DOMAIN,.*?shards: Shards::(\w+)", file.read(), re.DOTALL)
    # Those of every node, the cluster and the gateway, are counted by themselves.
    return {name: shards == "Shared" for name, shards in entries if name not in ("cluster", "http")}


# Every node has the databases of the gateway and of the cluster. A test compares this with the connections that real nodes
# may open.
DOMAINS = listed()
# For the backup, an operator, and those that PostgreSQL keeps for its superuser.
SPARE = 10
# What PostgreSQL lets in where nobody has told it otherwise.
STOCK = 100


def of_node(arguments, workers, each):
    """How many one node may open: what it is told, and two for each of its threads at least."""
    told = arguments[arguments.index("--domains") + 1] if "--domains" in arguments else "all"
    named = set(told.removeprefix("all-but:").split(",")) - {"all", "none"}
    if not named <= DOMAINS.keys():
        raise ValueError(f"--domains {told} names {named - DOMAINS.keys()}, which is no domain")
    hosted = named if told != "all" and not told.startswith("all-but:") else DOMAINS.keys() - named
    # The main thread, that of the cluster, and those of domains.
    threads = workers + 2 + sum(not DOMAINS[name] for name in hosted)
    return max(each, 2 * threads)


def limit(arguments):
    """What a PostgreSQL with these arguments lets in."""
    return int(next(argument.split("=")[1] for argument in arguments if argument.startswith("max_connections=")))


def documented(name):
    """The row of an installation in the table of connections: workers, connections of each, all of them, and the limit."""
    with open(os.path.join(FOLDER, "../docs/kubernetes.md"), encoding="utf-8") as file:
        row = re.search(rf"^\| {name} \|[^|]*\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", file.read(), re.MULTILINE)
    return tuple(map(int, row.groups())) if row else (0, 0, 0, 0)


def wrong(name, workers, each, total, let_in):
    """What is wrong with an installation and its row. A server that is not ours lets in what the row asks of it."""
    row = documented(name)
    let_in = let_in or row[3]
    if row != (workers, each, total, let_in):
        yield f"docs/kubernetes.md must say: {workers} | {each} | {total} | {let_in}"
    if total + SPARE > let_in:
        yield f"the nodes may open {total} connections, and PostgreSQL lets {let_in} in"
