"use strict";
// Shows the API's description. A request that is tried here is sent with the session of this page, or with the token
// given under "Authorize", which is forgotten with the page.
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", paint);
  paint();
  SwaggerUIBundle({
    url: "/api/v1/openapi.json", dom_id: "#reference", deepLinking: true, defaultModelsExpandDepth: 0, displayOperationId: true,
    displayRequestDuration: true, filter: true, showCommonExtensions: true, showExtensions: true, validatorUrl: null,
  });
}
