"use strict";
(() => {
  const $ = id => document.getElementById(id);
  const canCopy = Boolean(navigator.clipboard);
  let at = Date.parse($("asof").dateTime), came = performance.now(), heard = came;
  let parts = {}, spoken = document.querySelector(".lead").textContent;

  // Distances from now, in the words of the daemon.
  function words(ms) {
    const s = Math.floor(ms / 1000), d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
    const two = (a, one, b, other) => a + one + (b ? " " + b + other : "");
    return d ? two(d, "d", h, "h") : h ? two(h, "h", m, "m") : m ? two(m, "m", s % 60, "s") : s + "s";
  }
  function tick() {
    const now = at + performance.now() - came;
    for (const time of document.querySelectorAll("time[data-away]")) {
      const left = Date.parse(time.dateTime) - now;
      time.textContent = left > 0 ? "in " + words(left) : words(-left) + " ago";
    }
    const silent = performance.now() - heard > 12000;
    if ($("stale").hidden === silent) {
      $("stale").hidden = !silent;
      $("stale").textContent = silent ? "renewd does not answer. What is shown here is as of " + $("asof").textContent + " UTC." : "";
    }
  }

  // What is put in was escaped by the daemon. Focus and open details stay where they are.
  function fill(place, html) {
    const all = () => [...place.querySelectorAll("a,button,input,summary")];
    const focus = all().indexOf(document.activeElement);
    const open = [...place.querySelectorAll("details")].map(one => one.open);
    place.innerHTML = html;
    place.querySelectorAll("details").forEach((one, number) => { one.open = Boolean(open[number]); });
    if (focus >= 0) all()[focus]?.focus({ preventScroll: true });
    copies(place);
  }
  function copies(place) {
    for (const button of place.querySelectorAll(".copy")) button.hidden = !canCopy;
  }
  function show(update) {
    at = Date.parse(update.at);
    came = heard = performance.now();
    $("asof").dateTime = update.at;
    $("asof").textContent = update.at.slice(11, 19);
    $("day").textContent = update.at.slice(0, 10);
    for (const [id, html] of Object.entries(update.parts)) {
      if (parts[id] !== html) fill($(id), html);
      parts[id] = html;
    }
    document.title = update.title;
    document.documentElement.dataset.tone = update.tone;
    if (update.spoken !== spoken) $("spoken").textContent = spoken = update.spoken;
    last = { ...update, parts };
    tick();
  }

  // One stream for all tabs of this page: a browser allows six connections to a host. Whoever holds the lock has it and
  // tells the others; a tab that is not seen lets go of it.
  const channel = "BroadcastChannel" in window ? new BroadcastChannel("renewd" + location.pathname) : null;
  let last = null, leave = null, source = null;
  function listen() {
    source = new EventSource("api/events");
    source.onmessage = event => {
      show(JSON.parse(event.data));
      channel?.postMessage(last);
    };
    source.onerror = event => {
      if (event.target === source && source.readyState === EventSource.CLOSED) setTimeout(() => { if (event.target === source) { listen(); } }, 5000);
    };
  }
  function hush() {
    source?.close();
    source = null;
  }
  function come() {
    if (leave) return;
    heard = performance.now();
    const gone = new AbortController();
    const until = new Promise(done => { leave = () => { leave = null; gone.abort(); hush(); done(); }; });
    channel?.postMessage("hello");
    if (!navigator.locks) return listen();
    navigator.locks.request("renewd" + location.pathname, { signal: gone.signal }, () => {
      if (!gone.signal.aborted) listen();
      return until;
    }).catch(() => {});
  }
  if (channel) channel.onmessage = ({ data }) => {
    if (data !== "hello") show(data);
    else if (source && last) channel.postMessage(last);
  };

  document.addEventListener("visibilitychange", () => document.hidden ? leave?.() : come());
  addEventListener("pagehide", () => leave?.());
  addEventListener("pageshow", () => { if (!document.hidden) come(); });
  document.addEventListener("click", event => {
    const button = event.target.closest(".copy");
    if (!button) return;
    navigator.clipboard.writeText(button.previousElementSibling.textContent).then(() => {
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    }, () => getSelection().selectAllChildren(button.previousElementSibling));
  });
  copies(document);
  tick();
  setInterval(tick, 1000);
  if (!document.hidden) come();
})();
