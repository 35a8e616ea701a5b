/**
 * Logs a training into MLflow's file store, which is folders of text files (MLFLOW_TRACKING_DIR, or ./mlruns):
 *
 *   npx tiedlora train --config run.yaml --callbacks examples/callbacks/mlflow.js
 *   mlflow ui --backend-store-uri ./mlruns
 */
import { randomUUID } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";

const root = resolve(process.env.MLFLOW_TRACKING_DIR ?? "mlruns");
const id = randomUUID().replaceAll("-", "");
const run = join(root, "0", id);
const meta = {};

const yaml = (values) =>
  Object.entries(values).map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`).join(""); // prettier-ignore
const writeMeta = (more) => writeFileSync(join(run, "meta.yaml"), yaml(Object.assign(meta, more)));
const log = ({ step, ...metrics }) => {
  for (const [name, value] of Object.entries(metrics))
    appendFileSync(join(run, "metrics", name), `${Date.now()} ${value} ${step}\n`);
};

export function onStart({ settings, out }) {
  for (const name of ["metrics", "params", "tags", "artifacts"])
    mkdirSync(join(run, name), { recursive: true });
  const experiment = join(root, "0", "meta.yaml");
  const artifact_location = `file://${root}/0`;
  if (!existsSync(experiment))
    writeFileSync(experiment, yaml({ experiment_id: "0", name: "Default", artifact_location, lifecycle_stage: "active" })); // prettier-ignore
  for (const [name, value] of Object.entries(settings))
    writeFileSync(join(run, "params", name), typeof value === "string" ? value : JSON.stringify(value));
  writeFileSync(join(run, "tags", "mlflow.runName"), basename(out));
  // status: 1 running, 3 finished, 4 failed, 5 killed; source_type: 4 local
  writeMeta({ run_id: id, run_uuid: id, run_name: basename(out), experiment_id: "0", artifact_uri: `${artifact_location}/${id}/artifacts`, user_id: "", start_time: Date.now(), end_time: null, status: 1, lifecycle_stage: "active", source_type: 4, source_name: "", source_version: "", entry_point_name: "", tags: [] }); // prettier-ignore
}

export const onStep = log;
export const onEvaluate = log;
export const onEnd = ({ ended }) =>
  writeMeta({ end_time: Date.now(), status: ended === "interrupted" ? 5 : 3 });
