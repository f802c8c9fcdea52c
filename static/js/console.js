// What the pages do in the browser beside htmx: the socket's banner, dialogs, times, keys, copying.
(() => {
  "use strict";

  htmx.config.wsReconnectDelay = (tries) => Math.min(5000, 250 * 2 ** tries) * (0.5 + Math.random() / 2);

  // --- times: the page has UTC, the reader has a zone
  const today = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const other = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  function localise(root) {
    for (const time of root.querySelectorAll("time:not([data-local])")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const isToday = at.toDateString() === new Date().toDateString();
      time.textContent = (isToday ? today : other).format(at);
      time.dataset.local = "";
    }
  }

  // --- the socket
  const banner = document.getElementById("socket");
  let patience = 0;

  function say(text, link) {
    banner.textContent = text;
    if (link) {
      const anchor = document.createElement("a");
      anchor.href = location.href;
      anchor.textContent = link;
      banner.append(" ", anchor);
    }
    banner.hidden = !text;
  }

  const ENDED = {
    4401: ["You were signed out, or what you may do was changed.", "Reload"],
    4403: ["You may not see this page any more.", "Reload"],
    4404: ["This page is gone.", "Reload"],
  };

  document.addEventListener("htmx:wsOpen", () => {
    clearTimeout(patience);
    document.documentElement.dataset.socket = "open";
    say("");
  });
  document.addEventListener("htmx:wsClose", (event) => {
    document.documentElement.dataset.socket = "closed";
    clearTimeout(patience);
    const ended = ENDED[event.detail.event.code];
    if (ended) say(...ended);
    else patience = setTimeout(() => say("The connection to the console is lost: figures stand still. Trying again…"), 1500);
  });
  document.addEventListener("htmx:wsAfterMessage", (event) => {
    localise(document.getElementById("live"));
    event.detail.socketWrapper.sendImmediately(".");
  });
  window.addEventListener("pagehide", () => clearTimeout(patience));

  // --- requests that failed
  document.addEventListener("htmx:responseError", (event) => {
    const { status } = event.detail.xhr;
    say(status === 403 ? "You may not do this." : `That did not work: the console answered ${status}.`, "Reload");
  });
  document.addEventListener("htmx:sendError", () => say("The console could not be reached. Nothing was done."));

  // --- dialogs
  const dialog = document.getElementById("dialog");

  document.addEventListener("htmx:afterSwap", (event) => {
    localise(document);
    if (event.detail.target === dialog && !dialog.open) dialog.showModal();
    if (event.detail.target === dialog) dialog.querySelector("[autofocus]")?.focus();
  });
  document.addEventListener("click", (event) => {
    if (dialog.open && (event.target === dialog || event.target.closest("[data-close]"))) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("close", () => dialog.replaceChildren());

  // --- copying
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.querySelector(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2500);
  });

  // --- keys
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const wanted = document.querySelector(`[data-hotkey="${CSS.escape(event.key)}"]`);
    if (!wanted) return;
    event.preventDefault();
    wanted.focus();
    wanted.select?.();
  });

  localise(document);
})();
