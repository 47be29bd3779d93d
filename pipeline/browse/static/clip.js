// The span of a clip within its source; its latents, decoded when somebody asks for them.
"use strict";

(() => {
  const NEAR = 0.02; // seconds

  function refused() {
    const note = document.getElementById("unplayable");
    if (note) note.hidden = false;
  }

  const video = document.getElementById("original");
  if (video) {
    const start = Number(video.dataset.start);
    const end = Number(video.dataset.end);
    video.addEventListener("play", () => {
      if (video.currentTime < start - NEAR || video.currentTime >= end - NEAR) video.currentTime = start;
    });
    video.addEventListener("timeupdate", () => {
      if (video.currentTime >= end && !video.paused) video.pause();
    });
    const unplayable = () => {
      video.hidden = true;
      refused();
    };
    video.addEventListener("error", unplayable);
    video.addEventListener("loadedmetadata", () => {
      if (!video.videoWidth) unplayable(); // it plays the sound of it alone
    });
    if (video.error || (video.readyState >= 1 && !video.videoWidth)) unplayable();
  }

  const picture = document.getElementById("picture");
  if (picture) {
    const unshown = () => {
      if (!picture.dataset.still) return;
      picture.src = picture.dataset.still;
      delete picture.dataset.still;
      refused();
    };
    picture.addEventListener("error", unshown);
    if (picture.complete && !picture.naturalWidth) unshown();
  }

  const place = document.querySelector(".decoded");
  if (!place) return;
  const note = place.querySelector("[role=status]");

  function show() {
    const film = document.createElement(place.dataset.film ? "video" : "img");
    if (place.dataset.film) {
      film.controls = film.muted = film.playsInline = true;
      film.setAttribute("aria-label", "The decoded latents");
    } else {
      film.alt = "The decoded latents";
    }
    film.src = place.dataset.src;
    place.prepend(film);
  }

  async function decode() {
    const began = Date.now();
    const say = () => {
      note.textContent = `Decoding … ${Math.round((Date.now() - began) / 1000)} s`;
    };
    say();
    const timer = window.setInterval(say, 1000);
    try {
      const answer = await fetch(place.dataset.src, { method: "HEAD", headers: { Accept: "*/*" } });
      if (answer.ok) {
        show();
        note.textContent = "";
      } else {
        const words = await fetch(place.dataset.src, { headers: { Accept: "text/plain" } });
        note.textContent = await words.text();
      }
    } catch {
      note.textContent = "The server did not answer.";
    } finally {
      window.clearInterval(timer);
    }
  }

  const button = place.querySelector("a.button");
  if (button) {
    button.addEventListener("click", (event) => {
      event.preventDefault();
      button.remove();
      decode();
    });
  } else {
    const film = place.querySelector("video, img");
    film?.addEventListener("error", () => {
      film.remove();
      decode();
    });
  }
})();
