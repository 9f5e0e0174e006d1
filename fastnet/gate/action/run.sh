#!/usr/bin/env bash
# Compare (which also writes the summary of the job), keep the comment up to date, and end with the verdict's exit code.
set -uo pipefail
python=$(ls "$RUNNER_TEMP"/gate/*/python)
verdict=$RUNNER_TEMP/verdict
eval "arguments=($ARGS)" # quoted as in a shell, by the author of the workflow
"$python" -m fastnet compare "$BASE" "$HEAD" --markdown "$verdict.md" --json "$verdict.json" "${arguments[@]+"${arguments[@]}"}"
code=$?
echo "verdict=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["verdict"])' "$verdict.json")" >> "$GITHUB_OUTPUT"
if [ "$COMMENT" = true ]; then
  "$python" "$GITHUB_ACTION_PATH/comment.py" "$verdict.json" "$verdict.md" || echo "::warning::the comment could not be posted"
fi
if [ "$code" = 2 ] && [ "$FAIL_ON_INCONCLUSIVE" != true ]; then
  code=0
fi
exit "$code"
