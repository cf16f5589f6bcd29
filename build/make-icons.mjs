/**
 * Draws the program's icons: build/icon.png (from which electron-builder makes those of every system) and the picture of a
 * drag, in main/electron/drag-icon.ts. Run it after changing the drawing: node build/make-icons.mjs
 *
 * The drawing is that of the window's favicon (three points of a history on a line), white on a rounded teal ground, made
 * from distances to shapes so that it is smooth at any size. PNG as in https://www.w3.org/TR/png-3/
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync } from 'node:zlib';

const ground = [0x0f, 0x8f, 0x88];
const deep = [0x0a, 0x5c, 0x66];
const ink = [0xff, 0xff, 0xff];
/** In units of the drawing, which is 18 wide, as the favicon's. */
const line = [
  [4.2, 14.2],
  [7.2, 14.2],
  [10.8, 5.4],
  [13.8, 5.4],
];
const points = [
  [4.2, 14.2],
  [9, 9.8],
  [13.8, 5.4],
];

const clamp = (value) => Math.min(1, Math.max(0, value));
const mix = (one, other, part) => one.map((value, i) => value + (other[i] - value) * part);

function distanceToSegment(x, y, [ax, ay], [bx, by]) {
  const along = clamp(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2));
  return Math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay));
}

function distanceToRoundedSquare(x, y, half, radius) {
  const dx = Math.abs(x - 9) - half + radius;
  const dy = Math.abs(y - 9) - half + radius;
  return Math.hypot(Math.max(dx, 0), Math.max(dy, 0)) + Math.min(Math.max(dx, dy), 0) - radius;
}

/** The pixels of the icon, RGBA, `size` a side. */
export function drawIcon(size) {
  const pixels = Buffer.alloc(size * size * 4);
  const unit = 18 / size;
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const x = (column + 0.5) * unit;
      const y = (row + 0.5) * unit;
      // How much of the pixel a shape covers, from the distance to its edge.
      const cover = (distance) => clamp(0.5 - distance / unit);
      let onLine = Number.POSITIVE_INFINITY;
      for (let i = 1; i < line.length; i++) onLine = Math.min(onLine, distanceToSegment(x, y, line[i - 1], line[i]));
      let toPoint = Number.POSITIVE_INFINITY;
      for (const [px, py] of points) toPoint = Math.min(toPoint, Math.hypot(x - px, y - py));
      const shade = mix(ground, deep, clamp(y / 18));
      // A rim of ground sets the points off from the line.
      const lined = mix(shade, ink, cover(onLine - 0.55) * 0.75 * (1 - cover(toPoint - 2.1)));
      const color = mix(lined, ink, cover(toPoint - 1.6));
      const at = (row * size + column) * 4;
      for (let i = 0; i < 3; i++) pixels[at + i] = Math.round(color[i]);
      pixels[at + 3] = Math.round(255 * cover(distanceToRoundedSquare(x, y, 8.3, 3.6)));
    }
  }
  return pixels;
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const whole = Buffer.alloc(body.length + 8);
  whole.writeUInt32BE(data.length, 0);
  body.copy(whole, 4);
  whole.writeUInt32BE(crc32(body), body.length + 4);
  return whole;
}

/** RGBA pixels as a PNG file. */
export function encodePng(pixels, size) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(size, 0);
  header.writeUInt32BE(size, 4);
  // 8 bits a channel, RGBA, the only compression, filter and no interlacing.
  header.set([8, 6, 0, 0, 0], 8);
  const stride = size * 4;
  const filtered = Buffer.alloc(size * (stride + 1));
  for (let row = 0; row < size; row++) {
    // Filter 2, "up": each byte less the one above, which makes gradients compress well.
    filtered[row * (stride + 1)] = 2;
    for (let i = 0; i < stride; i++) {
      const above = row === 0 ? 0 : pixels[(row - 1) * stride + i];
      filtered[row * (stride + 1) + 1 + i] = (pixels[row * stride + i] - above) & 255;
    }
  }
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(filtered, { level: 9 })),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** Sides in pixels. */
export const iconSize = 1024;
export const dragIconSize = 48;

/** The text of main/electron/drag-icon.ts. */
export function dragIconModule() {
  const base64 = encodePng(drawIcon(dragIconSize), dragIconSize).toString('base64');
  const lines = base64.match(/.{1,110}/g).map((part) => `  '${part}',`);
  return `/** The picture under the pointer while files are dragged out. Made by build/make-icons.mjs; not to be edited. */\nexport const dragIcon = [\n  'data:image/png;base64,',\n${lines.join('\n')}\n].join('');\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('./icon.png', import.meta.url), encodePng(drawIcon(iconSize), iconSize));
  writeFileSync(new URL('../main/electron/drag-icon.ts', import.meta.url), dragIconModule());
}
