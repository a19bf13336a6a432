// The form of variables: empty rows appear as they are needed, and a file is read into the import.
import { all, one } from "./dom.js";

export const start = (form) => {
  form.addEventListener("input", ({ target }) => {
    const last = all("[data-blank]", form).at(-1), index = all("[role=group]", form).length;
    if (!last?.contains(target)) return;
    const fresh = last.cloneNode(true);
    for (const input of all("[name]", fresh)) {
      input.name = input.name.replace(/\d+$/, index);
      if (input.type !== "checkbox") input.value = "";
    }
    last.after(fresh);
  });
  const file = one("#import-file", form);
  file.parentElement.hidden = false;
  file.onchange = async () => { form.elements.import.value = await file.files[0].text(); };
};
