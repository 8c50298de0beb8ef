#!/usr/bin/env bash
# Prints the bash block of README.md that follows the line "<!-- ci: NAME -->". Usage: readme_block.sh NAME [FILE]
set -euo pipefail
awk -v marker="<!-- ci: $1 -->" '
    { sub(/\r$/, "") }
    state == 2 && /^```/ { state = 3; exit }
    state == 2 { print; lines++ }
    state == 1 && NF { if ($0 != "```bash") exit; state = 2 }
    $0 == marker { state = 1 }
    END { if (state != 3 || !lines) { print "no bash block after " marker > "/dev/stderr"; exit 1 } }
' "${2:-README.md}"
