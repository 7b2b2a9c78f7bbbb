import { execSync } from "node:child_process";
const out = execSync(`claude -p "${process.env.NEXT}"`);
console.log(out.toString());
