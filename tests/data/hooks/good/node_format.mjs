#!/usr/bin/env node
import { execFileSync } from "node:child_process";
// while (true) { spawn("claude", ["-p"]) }
/* execSync("claude -p x") */
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { tool_input } = JSON.parse(Buffer.concat(chunks).toString());
const text = "claude -p is only text; while(true){}";
if (/claude -p/.test(text)) console.log(text);
if (tool_input?.file_path?.endsWith(".ts")) {
  execFileSync("npx", ["prettier", "--write", tool_input.file_path]);
}
