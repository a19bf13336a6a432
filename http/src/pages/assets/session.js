// A session that ended while the page was open: it is told, and what was typed stays.
import { dialog, one } from "./dom.js";

// The answer, or null when nobody is signed in any more.
export const ask = async (address, options) => {
  const response = await fetch(address, options);
  if (response.status !== 401 && new URL(response.url).pathname !== "/sign-in") return response;
  tellSignedOut();
  return null;
};
export const tellSignedOut = () => { if (!one(".session")) dialog("session").addEventListener("close", () => dispatchEvent(new Event("shown"))); };
