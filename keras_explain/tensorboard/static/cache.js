// The most recently used values, as many as fit a number of bytes.

export class Cache {
  constructor(capacity) {
    this.capacity = capacity;
    this.bytes = 0;
    this.entries = new Map(); // oldest first
  }

  get(key) {
    const entry = this.entries.get(key);
    if (!entry) return undefined;
    this.entries.delete(key);
    this.entries.set(key, entry);
    return entry.value;
  }

  set(key, value, bytes) {
    this.delete(key);
    this.entries.set(key, { value, bytes });
    this.bytes += bytes;
    for (const oldest of this.entries.keys()) {
      if (this.bytes <= this.capacity || oldest === key) break;
      this.delete(oldest);
    }
  }

  delete(key) {
    this.bytes -= this.entries.get(key)?.bytes ?? 0;
    this.entries.delete(key);
  }
}
