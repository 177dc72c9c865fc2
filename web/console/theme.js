// Sets the theme before anything is drawn; it is no module because those run later.
(() => {
  "use strict";
  const key = "streamcount-theme";
  const apply = (theme) => {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  const read = () => {
    try { return localStorage.getItem(key) ?? ""; } catch { return ""; }
  };
  apply(read());
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = document.documentElement.dataset.theme ?? "";
    select.addEventListener("change", () => {
      apply(select.value);
      try { localStorage.setItem(key, select.value); } catch { /* it holds until the page is closed */ }
    });
  });
})();
