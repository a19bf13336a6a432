//! Archives of releases, which are named by their content: projects and nodes that have made the same share one.
//!
//! The row of a content decides between who lets its archive go and who is about to use it. A release is recorded
//! together with the generation that its archive was found or stored under, in a transaction that holds the row; an
//! archive goes by a transaction that holds the row, sees no release that needs it, and begins the next generation. So
//! one of them finds that the other was first, and no object is removed under a name that somebody may still use.

use callboard_supervisors::db::{Database, Error, Transaction};

/// Contents that are looked at in one go.
const PAGE: i64 = 50;

/// The generation that releases of this content are stored under.
pub(crate) async fn generation(database: &Database, digest: &str) -> Result<i64, Error> {
    let row: Option<(i64,)> = database
        .query("SELECT generation FROM archives WHERE digest = $1")
        .bind(digest.to_owned())
        .fetch_optional()
        .await?;
    Ok(row.map_or(0, |(generation,)| generation))
}

/// Holds the content's row for the rest of the transaction; answers its generation, which nobody else changes now.
pub(super) async fn hold(transaction: &mut Transaction, digest: &str) -> Result<i64, Error> {
    transaction
        .query(
            "INSERT INTO archives (digest, generation, swept) VALUES ($1, 0, 0)
             ON CONFLICT (digest) DO UPDATE SET swept = archives.swept RETURNING generation",
        )
        .bind(digest.to_owned())
        .fetch_scalar()
        .await
}

/// Begins the next generation of each content that no release needs any more; the objects of those before are free to
/// go.
pub(crate) async fn retire(transaction: &mut Transaction, mut digests: Vec<String>) -> Result<(), Error> {
    // In one order for all, so that nobody waits in a circle.
    digests.sort_unstable();
    digests.dedup();
    for digest in digests {
        // A statement of its own: what was recorded before the row was got is seen by the next one only.
        hold(transaction, &digest).await?;
        transaction
            .query(
                "UPDATE archives SET generation = generation + 1 WHERE digest = $1
                   AND NOT EXISTS (SELECT 1 FROM releases WHERE releases.digest = $1 AND releases.kept)",
            )
            .bind(digest)
            .execute()
            .await?;
    }
    Ok(())
}

/// Objects of a content that are free to go: those of the generations from `swept` to before `generation`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Unswept {
    pub(crate) digest: String,
    pub(crate) generation: i64,
    pub(crate) swept: i64,
}

/// Some of the contents whose former objects may still be there, whichever node retired them.
pub(crate) async fn unswept(database: &Database) -> Result<Vec<Unswept>, Error> {
    database
        .query("SELECT digest, generation, swept FROM archives WHERE swept < generation ORDER BY digest LIMIT $1")
        .bind(PAGE)
        .fetch_all()
        .await
}

/// The objects are gone.
pub(crate) async fn set_swept(database: &Database, swept: &Unswept) -> Result<(), Error> {
    database
        .query("UPDATE archives SET swept = $2 WHERE digest = $1 AND swept < $2")
        .bind(swept.digest.clone())
        .bind(swept.generation)
        .execute()
        .await?;
    Ok(())
}
