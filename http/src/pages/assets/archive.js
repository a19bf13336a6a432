// A tar.gz of files that were dropped or chosen, made in the browser.
const encoder = new TextEncoder();
// What a build installs or a machine leaves behind.
const LEFT_OUT = /^(\.git|node_modules|\.?venv|__pycache__|\.DS_Store|\.next|\.nuxt|\.svelte-kit|\.tox)$/;

const header = (path, size, type) => {
  const block = new Uint8Array(512), put = (at, text) => block.set(encoder.encode(text), at);
  const octal = (number, digits) => number.toString(8).padStart(digits, "0");
  put(0, path);
  put(100, octal(0o755, 7));
  put(124, octal(size, 11));
  put(136, octal(0, 11));
  put(148, `        ${type}`);
  put(257, "ustar\u000000");
  put(148, `${octal(block.reduce((sum, byte) => sum + byte, 0), 6)}\0 `);
  return block;
};
const rest = (size) => new Uint8Array((512 - size % 512) % 512);

// A record for a path that the header has no room for; its length counts itself.
const record = (path) => {
  const text = ` path=${path}\n`, size = encoder.encode(text).length;
  let length = size + 1;
  while (String(length).length + size !== length) length = String(length).length + size;
  return encoder.encode(length + text);
};

async function* pieces(files, tell) {
  let done = 0;
  for (const { path, file } of files) {
    const name = path.normalize("NFC"), long = encoder.encode(name).length > 99 && record(name);
    if (long) yield* [header("path", long.length, "x"), long, rest(long.length)];
    yield header(long ? "long" : name, file.size, "0");
    yield* file.stream();
    yield rest(file.size);
    tell(++done);
  }
  yield new Uint8Array(1024);
}

// The archive; `tell` hears how many files are in it.
export const pack = (files, tell) => {
  const all = pieces(files, tell);
  const stream = new ReadableStream({ pull: async (to) => { const { done, value } = await all.next(); if (done) to.close(); else to.enqueue(value); } });
  return new Response(stream.pipeThrough(new CompressionStream("gzip"))).blob();
};

// The files of what was dropped, by their paths below its only folder, and what was left out.
export const dropped = async ({ items }) => {
  const roots = [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean), files = [], left = new Set();
  const walk = async (entry, path) => {
    if (LEFT_OUT.test(entry.name)) left.add(entry.name);
    else if (entry.isFile) files.push({ path, file: await new Promise((...to) => entry.file(...to)) });
    else {
      const reader = entry.createReader();
      for (let some = [0]; some.length;) {
        some = await new Promise((...to) => reader.readEntries(...to));
        for (const child of some) await walk(child, path ? `${path}/${child.name}` : child.name);
      }
    }
  };
  const folder = roots.length === 1 && roots[0].isDirectory;
  for (const root of roots) await walk(root, folder ? "" : root.name);
  return { name: folder ? roots[0].name : "", files, left: [...left].join(", "), isFile: roots.length === 1 && !folder };
};

// The same of a folder that was chosen.
export const chosen = (list) => {
  const files = [], left = new Set();
  for (const file of list) {
    const [, ...path] = file.webkitRelativePath.split("/"), out = path.find((name) => LEFT_OUT.test(name));
    if (out) left.add(out); else files.push({ path: path.join("/"), file });
  }
  return { name: list[0]?.webkitRelativePath.split("/")[0] ?? "", files, left: [...left].join(", ") };
};
