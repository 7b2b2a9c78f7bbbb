const cp = require("child_process");
setTimeout(() => cp.fork(__filename), 1000);
