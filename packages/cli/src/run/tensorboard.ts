/**
 * Event files that TensorBoard reads: records (length, masked CRC-32C, data, masked CRC-32C) that hold Event messages of
 * tensorflow/core/util/event.proto. Only scalars are written.
 */
import { hostname } from "node:os";

/** The CRC-32C (Castagnoli) of each byte. */
const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c >>> 0;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** The CRC in the masked form that the format stores, so that a CRC of data that contains CRCs is not weak. */
function masked(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function record(data: Uint8Array): Buffer {
  const header = Buffer.alloc(12);
  header.writeBigUInt64LE(BigInt(data.length), 0);
  header.writeUInt32LE(masked(header.subarray(0, 8)), 8);
  const footer = Buffer.alloc(4);
  footer.writeUInt32LE(masked(data), 0);
  return Buffer.concat([header, data, footer]);
}

// Protocol buffers: a field is its number and wire type, then its value.
const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

const tag = (field: number, wire: number): Buffer => varint(field * 8 + wire);

function double(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([tag(field, FIXED64), bytes]);
}

function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([tag(field, FIXED32), bytes]);
}

const integer = (field: number, value: number): Buffer => Buffer.concat([tag(field, VARINT), varint(value)]);

function nested(field: number, content: Buffer | string): Buffer {
  const bytes = Buffer.from(content);
  return Buffer.concat([tag(field, LENGTH), varint(bytes.length), bytes]);
}

/** The first record of every file. */
export function versionEvent(seconds: number): Buffer {
  return record(Buffer.concat([double(1, seconds), nested(3, "brain.Event:2")]));
}

/** A record that marks the (re)start of a run at `step`: TensorBoard then discards earlier files' data from that step on. */
export function startEvent(seconds: number, step: number): Buffer {
  const sessionLog = integer(1, 1); // status: START
  return record(Buffer.concat([double(1, seconds), integer(2, step), nested(7, sessionLog)]));
}

export function scalarsEvent(
  seconds: number,
  step: number,
  scalars: Readonly<Record<string, number>>,
): Buffer {
  const values = Object.entries(scalars).map(([name, value]) =>
    nested(1, Buffer.concat([nested(1, name), float(2, value)])),
  );
  return record(Buffer.concat([double(1, seconds), integer(2, step), nested(5, Buffer.concat(values))]));
}

/** A name of the form that TensorBoard looks for; the files of one directory are one run, in the order of their names. */
export function eventFileName(seconds: number): string {
  const time = String(Math.floor(seconds)).padStart(10, "0");
  return `events.out.tfevents.${time}.${hostname()}.${process.pid}`;
}
