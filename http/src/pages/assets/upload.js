// A new app, or a new version of one, from a folder or an archive that is dropped or chosen.
import { chosen, dropped, pack } from "./archive.js";
import { one } from "./dom.js";
import { tellSignedOut } from "./session.js";
import { AWAY } from "./swap.js";

const MOST_FILES = 50000;

export const start = (form) => {
  const part = (selector) => one(selector, form), { project, app, largest } = form.dataset, { archive: input, name, attempt, organization } = form.elements;
  const zone = part("[data-drop]"), state = part("[data-drop-state]"), progress = part("progress"), button = part(".primary"), folder = part("#folder");
  let made = project && { id: project, name: app }, archive = null, source = null;
  part("[data-folder]").hidden = false;
  part("[data-drop-text]").textContent = "Drop the app's folder or an archive here, or choose one.";
  const tell = (text, wrong) => { state.textContent = text; state.className = wrong ? "error" : "muted"; };
  const keep = (blob, called, about = "") => {
    [archive, source, input.required] = [blob, null, false];
    if (name) name.value ||= called.toLowerCase().replace(/\.(tar\.gz|tgz|zip)$/, "").replace(/[^a-z0-9]+/g, "-").replace(/^[^a-z]+|-+$/g, "").slice(0, 40);
    tell(`${called}: ${Math.ceil(blob.size / 1024)} KiB${about}`);
  };
  const take = async ({ name: called, files, left }) => {
    if (!files.length || files.length > MOST_FILES) return tell(`It has ${files.length} files${files.length ? "; leave out what a build installs" : ""}.`, true);
    button.disabled = true;
    try {
      keep(await pack(files, (done) => done % 50 || tell(`Packed ${done} of ${files.length} files`)), called, ` packed, ${files.length} files${left && `; left out: ${left}`}`);
    } catch ({ message }) {
      tell(`A file can't be read: ${message}`, true);
    }
    button.disabled = false;
  };
  input.onchange = () => input.files[0] && keep(input.files[0], input.files[0].name);
  folder.onchange = () => take(chosen(folder.files));
  zone.ondragover = zone.ondragleave = (event) => { event.preventDefault(); zone.classList.toggle("over", event.type === "dragover"); };
  zone.ondrop = async (event) => {
    zone.ondragleave(event);
    const { files } = event.dataTransfer, found = await dropped(event.dataTransfer);
    if (found.isFile && /\.(tgz|gz|zip)$/i.test(files[0].name)) keep(files[0], files[0].name); else take(found);
  };

  // The answer; throws what is wrong in a sentence.
  const post = (address, body) => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(), isFile = body === archive;
    request.open("POST", address);
    request.setRequestHeader("Content-Type", isFile ? "application/octet-stream" : "application/json");
    if (!isFile) request.setRequestHeader("Idempotency-Key", attempt.value);
    else request.upload.onprogress = ({ loaded, total }) => { progress.value = loaded / total; tell(`Uploaded ${Math.round(100 * loaded / total)} %`); };
    if (organization) request.setRequestHeader("Callboard-Organization", organization.value);
    request.onload = () => {
      let answer;
      try { answer = JSON.parse(request.response); } catch { return reject(AWAY); }
      if (request.status === 401) tellSignedOut();
      if (request.status === 201) resolve(answer); else reject(answer.detail);
    };
    request.onerror = () => reject(AWAY);
    request.send(isFile ? body : JSON.stringify(body));
  });
  form.addEventListener("submit", async (event) => {
    if (!archive) return;
    event.preventDefault();
    if (archive.size > largest) return tell("It is larger than the node takes; leave out what a build installs.", true);
    button.disabled = !(progress.hidden = false);
    try {
      if (name && made?.name !== name.value) { made = null; made = await post("/api/v1/projects", { name: name.value }); }
      const at = `/api/v1/projects/${made.id}`;
      source ??= await post(`${at}/sources`, archive);
      const { id } = await post(`${at}/deployments`, { source: { archive: { source_id: source.id } } });
      location.assign(`/apps/${made.name}/deployments/${id}`);
    } catch (sentence) {
      tell(sentence, true);
      if (!made) name.focus();
      button.disabled = !(progress.hidden = true);
    }
  });
};
