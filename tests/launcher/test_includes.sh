#!/bin/bash
# Dependencies point down: which folder may include which. Reads every #include "..." of the folders; $1 is not used.
set -u
cd "$(dirname "$0")/../.."
declare -A may=(
    [launcher]="launcher report worker comm model data ckpt base"
    [report]="report worker comm model data ckpt base"
    [worker]="worker comm model data ckpt base"
    [comm]="comm base"
    [model]="model base"
    [data]="data base"
    [ckpt]="ckpt base"
    [base]="base"
)
bad=0
seen=0
for folder in "${!may[@]}"; do
    while IFS=: read -r file line include; do
        seen=$((seen + 1))
        path=${include#*\"}
        path=${path%%\"*}
        target=${path%%/*}
        if [ "$target" = "$path" ] || [[ $path == *..* ]]; then
            echo "$file:$line: #include \"$path\": wanted the path from the root, as in \"base/status.h\""
            bad=1
        elif [[ " ${may[$folder]} " != *" $target "* ]]; then
            echo "$file:$line: $folder/ may not include $target/ (allowed: ${may[$folder]})"
            bad=1
        elif [ ! -f "$path" ]; then
            echo "$file:$line: #include \"$path\": there is no such file"
            bad=1
        fi
    done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' --include='*.c' --include='*.h' --include='*.cu' \
        --include='*.cuh' --include='*.cpp' "$folder")
done
# Libraries belong to folders, too.
while IFS=: read -r header folder; do
    while IFS=: read -r file line _; do
        [ "${file%%/*}" = "$folder" ] && continue
        echo "$file:$line: <$header> belongs to $folder/"
        bad=1
    done < <(grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<$header>" --include='*.c' --include='*.h' "${!may[@]}")
done <<'END'
mpi.h:comm
hdf5.h:data
libconfig.h:launcher
dnnl.h:model
jansson.h:base
xxhash.h:base
utf8proc.h:data
END
if [ $seen -lt 100 ]; then
    echo "only $seen includes were found: this test looks at the wrong place"
    bad=1
fi
exit $bad
