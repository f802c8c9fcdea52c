// The swap style "morph": changes an element into its new form instead of replacing it, so that focus,
// selection, scrolling and an open menu survive a live update, and nothing that stayed the same is touched.
(() => {
  "use strict";

  const same = (old, fresh) =>
    old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && (old.id || "") === (fresh.id || "");

  function attributes(old, fresh) {
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }

  function children(old, fresh) {
    // Children with an id are found by it wherever they moved to; the others pair up in their order.
    const byId = new Map();
    for (const child of old.children) if (child.id) byId.set(child.id, child);
    let place = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const known = next.id ? byId.get(next.id) : undefined;
      if (known && same(known, next)) {
        if (known === place) place = place.nextSibling;
        else old.insertBefore(known, place);
        morph(known, next);
      } else if (place && !next.id && !place.id && same(place, next)) {
        const here = place;
        place = place.nextSibling;
        morph(here, next);
      } else {
        old.insertBefore(next, place);
      }
    }
    while (place) {
      const gone = place;
      place = place.nextSibling;
      gone.remove();
    }
  }

  function morph(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    if (old.nodeName === "TIME" && old.dateTime === fresh.dateTime) return; // shown in the viewer's own zone
    attributes(old, fresh);
    children(old, fresh);
  }

  htmx.defineExtension("morph", {
    isInlineSwap: (style) => style === "morph",
    handleSwap: (style, target, fragment) => {
      if (style !== "morph") return false;
      const fresh = fragment.firstElementChild;
      fresh.setAttribute("hx-swap-oob", "morph");
      morph(target, fresh);
      return [target];
    },
  });
})();
