// Colours that differ from each other on pictures, in light and dark.

const COLOURS = [
  "#ff5cd0", "#22d3ee", "#facc15", "#4ade80", "#fb923c",
  "#a78bfa", "#f87171", "#a3e635", "#60a5fa", "#f5a9c8",
];

// The first colour that is not used yet, or another one for the class with this number.
export function newColour(used, number) {
  return COLOURS.find((colour) => !used.includes(colour)) ?? `hsl(${(number * 137.5) % 360} 85% 68%)`;
}
