// Dragging in a picture moves the divider between two maps.

const LEAST = 3; // pixels; less is a click

export function followDrags(root, set) {
  let start = null;
  let dragged = false;
  root.addEventListener("pointerdown", (event) => {
    const tile = event.target.closest(".tile.swipe");
    start = tile && { tile, x: event.clientX };
    dragged = false;
  });
  root.addEventListener("pointermove", (event) => {
    if (!start || !event.buttons) return;
    dragged ||= Math.abs(event.clientX - start.x) >= LEAST;
    const box = start.tile.getBoundingClientRect();
    if (dragged) set(Math.round(100 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))));
  });
  root.addEventListener("click", (event) => {
    if (dragged) event.stopPropagation(); // it was no click on the cell
    dragged = false;
  }, { capture: true });
}
