// NumPy's formats: an array as .npy, several as .npz (a zip archive that packs nothing).

const encoder = new TextEncoder();
const CRC = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

// data: a Float32Array or Int32Array, in the order of rows; shape: its sizes
export function npy(data, shape) {
  const type = data instanceof Int32Array ? "<i4" : "<f4";
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${type}', 'fortran_order': False, 'shape': (${sizes}), }`;
  const length = Math.ceil((10 + text.length + 1) / 64) * 64 - 10;
  const magic = Uint8Array.of(0x93, ...encoder.encode("NUMPY"), 1, 0, length & 255, length >> 8);
  const header = encoder.encode(`${text.padEnd(length - 1)}\n`);
  return joined([magic, header, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)]);
}

// arrays: [name, bytes of an .npy] pairs
export function npz(arrays) {
  const files = [];
  const entries = [];
  let offset = 0;
  for (const [name, bytes] of arrays) {
    const path = encoder.encode(`${name}.npy`);
    const common = fields([[20, 2], [0x800, 2], [0, 2], [0, 2], [0x21, 2], [crc(bytes), 4], [bytes.length, 4], [bytes.length, 4], [path.length, 2], [0, 2]]);
    const local = [fields([[0x04034b50, 4]]), common, path, bytes];
    entries.push(fields([[0x02014b50, 4], [20, 2]]), common, fields([[0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]]), path);
    files.push(...local);
    offset += local.reduce((sum, part) => sum + part.length, 0);
  }
  const size = entries.reduce((sum, part) => sum + part.length, 0);
  const end = fields([[0x06054b50, 4], [0, 2], [0, 2], [arrays.length, 2], [arrays.length, 2], [size, 4], [offset, 4], [0, 2]]);
  return joined([...files, ...entries, end]);
}

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

// Numbers as little-endian bytes: [value, size] pairs.
function fields(pairs) {
  return Uint8Array.from(pairs.flatMap(([value, size]) => Array.from({ length: size }, (_, byte) => (value >>> (8 * byte)) & 255)));
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
