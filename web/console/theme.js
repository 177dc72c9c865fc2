// Sets the theme before the page is drawn. This is not a module, because modules run later.
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
      try { localStorage.setItem(key, select.value); } catch { /* storage is blocked: the theme is lost when the page is closed */ }
    });
  });
})();
