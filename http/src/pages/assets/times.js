// Shows times in the reader's zone: as long ago while that is short, and in full when pointed at.
import { all } from "./dom.js";

const format = (dateStyle, timeStyle) => new Intl.DateTimeFormat(undefined, { dateStyle, timeStyle });
export const minute = format("medium", "short"), clock = format(undefined, "medium");
const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

const told = (at) => {
  const seconds = Math.round((at - Date.now()) / 1000), far = Math.abs(seconds);
  const [size, unit] = far < 60 ? [1, "second"] : far < 3600 ? [60, "minute"] : [3600, "hour"];
  return far < 86400 ? ago.format(Math.trunc(seconds / size), unit) : minute.format(at);
};

export const showTimes = (root) => {
  for (const time of all("time[datetime]", root)) {
    const at = new Date(time.dateTime);
    time.textContent = time.closest(".line") ? clock.format(at) : told(at);
    time.title = minute.format(at);
  }
};
setInterval(showTimes, 15000, document);
