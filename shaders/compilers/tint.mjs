// Compiles every WGSL file of a folder with Tint, the compiler of Chrome's browsers, by way of Dawn in Node: no GPU and no
// browser is needed. Ends with 1, and says why, where Tint refuses one.
//
// node tint.mjs FOLDER MODULES: MODULES is the node_modules that `cargo xtask setup` has filled.

import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [folder, modules] = process.argv.slice(2);
const { create } = createRequire(resolve(modules, "main.js"))("webgpu");
// The null device compiles and computes nothing; f16 is an unsafe API to it.
const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice({ requiredFeatures: ["shader-f16"] });

const refused = [];
const files = readdirSync(folder).filter((name) => name.endsWith(".wgsl"));
for (const name of files) {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code: readFileSync(join(folder, name), "utf8") });
  device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  const error = await device.popErrorScope();
  if (error) {
    refused.push(`${name}: ${error.message}`);
  }
}
device.destroy();
console.log(`Tint compiled ${files.length - refused.length} of ${files.length} texts`);
if (refused.length > 0) {
  console.error(refused.join("\n"));
}
// Dawn keeps Node alive otherwise.
process.exit(refused.length > 0 ? 1 : 0);
