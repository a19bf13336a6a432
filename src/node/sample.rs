//! The sample app: the static example, deployed at the first start, so that a newcomer sees an app that runs.

use std::sync::Arc;

use callboard_messages::{
    Caller, Secret,
    auth::ValidateToken,
    deploy::{CreateDeployment, DeploymentSource, RegisterSource, Source},
    project::CreateProject,
};
use callboard_supervisors::Bus;
use flate2::{Compression, write::GzEncoder};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use uuid::Uuid;

use crate::error::{Context, Result};

/// Its name, also in its host.
pub const NAME: &str = "sample";

const FILES: [(&str, &[u8]); 2] = [
    ("index.html", include_bytes!("../../examples/static/index.html")),
    ("style.css", include_bytes!("../../examples/static/style.css")),
];

/// Deploys it in the name of the local operator. A failure is only logged.
pub async fn deploy(bus: Bus, objects: Arc<dyn ObjectStore>, key: Secret) {
    if let Err(error) = try_deploy(&bus, objects.as_ref(), key).await {
        tracing::warn!("the sample app was not deployed: {}", error.sentence);
    }
}

async fn try_deploy(bus: &Bus, objects: &dyn ObjectStore, key: Secret) -> Result {
    let validate = ValidateToken { token: key, organization_id: None, revocation_count: 0 };
    let operator = bus.ask(&Caller::system(), validate).await.context(|| "sign in".to_owned())?.caller;
    let project = CreateProject { name: NAME.to_owned(), description: Some("The sample app.".to_owned()) };
    let project_id = bus.ask(&operator, project).await.context(|| "create the project".to_owned())?.id;

    let archive = archive().context(|| "pack it".to_owned())?;
    let source = Source { id: Uuid::now_v7(), size: archive.len() as u64, sha256: sha256(&archive) };
    let source_id = source.id;
    let path = Path::from(format!("sources/{source_id}"));
    objects.put(&path, archive.into()).await.context(|| "store it".to_owned())?;
    bus.ask(&operator, RegisterSource { project_id, source }).await.context(|| "register it".to_owned())?;
    let deployment = CreateDeployment {
        project_id,
        source: DeploymentSource::Archive { source_id },
        allow_missing: false,
        rebuild: false,
        config: None,
    };
    bus.ask(&operator, deployment).await.context(|| "deploy it".to_owned())?;
    Ok(())
}

fn archive() -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, content) in FILES {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content)?;
    }
    archive.into_inner()?.finish()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
