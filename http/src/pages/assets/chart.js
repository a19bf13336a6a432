// What a chart tells where it is pointed at, and its zoom: a part that is selected is a link with `from` and `to`.
import { all, one } from "./dom.js";
import { minute } from "./times.js";

export const start = (chart) => {
  const svg = one("svg", chart), tip = one(".chart-tip", chart), selection = one(".selection", chart), rows = all("tbody tr", chart);
  const [from, to, left, right] = ["from", "to", "left", "right"].map((name) => +chart.dataset[name]);
  const points = all(".point", svg).map((element, index) => {
    const [x, width, cx] = ["x", "width", "cx"].map((name) => +element.getAttribute(name));
    return { element, x: cx || x + width / 2, text: `${minute.format(new Date(one("time", rows[index]).dateTime))}: ${element.textContent}` };
  });
  const scale = () => svg.clientWidth / svg.viewBox.baseVal.width;
  const place = ({ offsetX }) => Math.min(right, Math.max(left, offsetX / scale()));
  const time = (x) => Math.round(from + (x - left) / (right - left) * (to - from));
  for (const text of all("[data-time]", svg)) text.textContent = minute.format(new Date(text.dataset.time));
  let began = null;
  svg.onpointermove = (event) => {
    const x = place(event);
    if (began !== null) {
      selection.setAttribute("x", Math.min(began, x));
      selection.setAttribute("width", Math.abs(began - x));
    }
    const nearest = points.toSorted((a, b) => Math.abs(a.x - x) - Math.abs(b.x - x))[0];
    for (const { element } of points) element.classList.toggle("at", element === nearest?.element);
    if (!nearest) return;
    tip.textContent = nearest.text;
    tip.hidden = false;
    tip.style.left = `${Math.max(8, Math.min(chart.clientWidth - tip.offsetWidth - 8, nearest.x * scale() + 16 - tip.offsetWidth / 2))}px`;
  };
  svg.onpointerleave = () => { tip.hidden = true; };
  svg.onpointerdown = (event) => { began = place(event); svg.setPointerCapture(event.pointerId); };
  svg.onpointerup = (event) => {
    const [first, last] = [began, place(event)].sort((a, b) => a - b), address = new URL(location);
    began = null;
    selection.setAttribute("width", 0);
    if (last - first < 8) return;
    address.searchParams.set("from", time(first));
    address.searchParams.set("to", time(last) + 1);
    location.assign(address);
  };
};
