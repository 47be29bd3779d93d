// The stills of a clip follow each other while it is pointed at or has the focus. A page has the
// first one, and asks for the others by their numbers; a report has them all.
"use strict";

(() => {
  const MILLISECONDS = 400;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let stop = () => {};

  // Functions that show the stills of a clip by number, once they are there.
  function inPlace(images) {
    return async (number) => {
      images.forEach((image, n) => { image.hidden = n !== number; });
    };
  }

  function byAddress(image) {
    const first = image.getAttribute("src");
    return async (number) => {
      const address = number ? first.replace(/[^/]*$/, String(number)) : first;
      const next = new Image();
      next.src = address;
      await next.decode();
      return () => { image.setAttribute("src", address); };
    };
  }

  function play(clip) {
    stop();
    const images = [...clip.querySelectorAll("img")];
    const count = images.length > 1 ? images.length : Number(clip.dataset.stills);
    if (still.matches || !images.length || !(count > 1)) return;
    const show = images.length > 1 ? inPlace(images) : byAddress(images[0]);
    let shown = 0;
    let playing = true;
    let timer = 0;

    async function next() {
      try {
        const ready = await show((shown + 1) % count);
        if (!playing) return;
        ready?.();
        shown = (shown + 1) % count;
        timer = window.setTimeout(next, MILLISECONDS);
      } catch {
        playing = false; // a still that is not to be had
      }
    }

    timer = window.setTimeout(next, MILLISECONDS / 4);
    stop = () => {
      playing = false;
      window.clearTimeout(timer);
      if (shown) show(0).then((ready) => ready?.());
      stop = () => {};
    };
  }

  for (const clip of document.querySelectorAll(".clip")) {
    clip.addEventListener("pointerenter", () => play(clip));
    clip.addEventListener("pointerleave", () => stop());
    clip.addEventListener("focus", () => play(clip));
    clip.addEventListener("blur", () => stop());
  }
})();
