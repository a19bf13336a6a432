// The few words in which the other modules speak of the page.
export const one = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];
export const make = (tag, fields = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
};
// Shows what is in a template of this name, or another element, as a dialog.
export const dialog = (className, body = one(`template#${className}`).content.cloneNode(true)) => {
  const shown = make("dialog", { className }, body);
  shown.addEventListener("close", () => shown.remove());
  document.body.append(shown);
  shown.showModal();
  return shown;
};
