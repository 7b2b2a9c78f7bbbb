const { exec, spawnSync } = require("child_process");
exec("git status --short", (e, out) => console.log(out));
spawnSync("claude", ["--version"]);
const claude = "claude";
console.log(`${claude} -p`, process.argv[2]);
