#!/usr/bin/env bash
# Build and time a recipe's FP16, PTQ and QAT engines on this device, and leave one folder that `trtq report` opens.
#
# The recipe's folder has to be there as the workstation built it: `trtq build RECIPE.toml --mode fp16,ptq,qat`. On a
# Jetson the clocks are locked meanwhile (jetson_clocks), and restored afterwards: also after Ctrl-C and after a failure.
set -euo pipefail

USAGE="usage: compare-on-orin.sh [OPTION...] RECIPE.toml [-- OPTION OF trtq bench...]

  --mode LIST         what to compare (fp16,ptq,qat)
  --backend NAME      trt, trtexec, or on any machine rtx, ort, ort-native (trt)
  --image IMAGE       run trtq in this container image; without, the trtq on PATH
  --power-mode N      nvpmodel's mode meanwhile (as it is)
  --keep-clocks       lock no clocks
  --output FOLDER     the folder to bring back; must not be there (./NAME-HOST-TIME)
  --dry-run           print every step and do none"

# What the report and the builds read of a mode's folder. Engines and their layers are made anew, on this device.
KEPT="model.onnx model.onnx.data model.fp16.onnx model.fp16.onnx.data accuracy.json groups.json lint.json predicted.json"
BUILT_MODES="fp32 fp16 naive ptq qat"

modes=fp16,ptq,qat backend=trt image="" power_mode="" keep_clocks=no output="" dry_run=no recipe=""
bench_options=() calibration=() groups=() runner=(trtq)
child="" tegrastats="" keeper="" locked=no old_power_mode="" step=0

main() {
    parse "$@"
    check
    trap finish EXIT
    listen
    gather
    describe
    lock_clocks
    build_engines
    bench
    layers
    differences
    restore_clocks
    write_report
    say "bring back: $output"
    do_ mv -T "$work" "$output"
    echo "$output: open it with: trtq report $output/$name.toml"
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            --mode) modes=$(value "$@"); shift ;;
            --backend) backend=$(value "$@"); shift ;;
            --image) image=$(value "$@"); shift ;;
            --power-mode) power_mode=$(value "$@"); shift ;;
            --output) output=$(value "$@"); shift ;;
            --keep-clocks) keep_clocks=yes ;;
            --dry-run) dry_run=yes ;;
            -h | --help) echo "$USAGE"; exit 0 ;;
            --) shift; bench_options=("$@"); break ;;
            -*) fail "$1 is no option; --help lists them" ;;
            *) [ -z "$recipe" ] || fail "one recipe at a time, not $recipe and $1"; recipe=$1 ;;
        esac
        shift
    done
}

value() {
    [ $# -gt 1 ] || fail "$1 wants a value"
    echo "$2"
}

check() {
    [ -n "$recipe" ] || fail "name a recipe; --help says how"
    [ -f "$recipe" ] || fail "$recipe: no such recipe"
    name=$(basename "$recipe" .toml)
    source=${recipe%.toml}
    case ,$modes, in *[!a-z0-9,]* | ,, | *,,*) fail "--mode $modes: name some of fp32,fp16,ptq,qat, separated by commas" ;; esac
    for mode in ${modes//,/ }; do
        case $mode in fp32 | fp16 | ptq | qat) ;; *) fail "--mode $mode: engines are of fp32, fp16, ptq and qat" ;; esac
        [ -f "$source/$mode/model.onnx" ] ||
            fail "$source/$mode/model.onnx is not there: on the workstation run trtq build $recipe --mode $modes"
    done
    check_power_mode
    output=${output:-$PWD/$name-$(hostname)-$(date -u +%Y%m%dT%H%M%SZ)}
    case $output in /*) ;; *) output=$PWD/$output ;; esac
    while [ "$output" != / ] && [ "${output%/}" != "$output" ]; do output=${output%/}; done
    work=$output.partial
    [ ! -e "$output" ] && [ ! -e "$work" ] || fail "$output is there already, or its .partial of a broken run: name another"
    if [ -z "$image" ]; then
        command -v trtq >/dev/null || fail "trtq is not on PATH: install it, or name its container with --image"
    else
        command -v docker >/dev/null || fail "--image needs docker, which is not on PATH"
        device_groups
        runner=(docker run --rm --init --runtime nvidia "${groups[@]}" --user "$(id -u):$(id -g)"
            --volume "$work:/workspace" "$image")
    fi
    # ONNX Runtime's integer kernels take ranges that Q/DQ files do not state.
    [ "$backend" != ort-native ] || calibration=(--calibration "$name.toml")
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
}

check_power_mode() {
    [ -n "$power_mode" ] || return 0
    case $power_mode in *[!0-9]*) fail "--power-mode $power_mode: give nvpmodel's number of the mode; nvpmodel -q names the present one" ;; esac
    [ "$keep_clocks" = no ] || fail "--power-mode and --keep-clocks exclude each other: a power mode sets clocks"
    [ "$dry_run" = yes ] || command -v nvpmodel >/dev/null || fail "--power-mode needs nvpmodel, which is not on PATH"
}

# Who is not root reaches a Jetson's GPU through the groups of its device files. Only video has one number everywhere;
# since JetPack 6 CUDA wants render as well, whose number is each host's own.
device_groups() {
    groups=(--group-add video)
    for device in /dev/nvmap /dev/nvhost-gpu /dev/nvgpu/igpu0/power /dev/dri/renderD*; do
        [ -c "$device" ] || continue
        number=$(stat --format %g "$device")
        case "$number ${groups[*]} " in "0 "* | "44 "* | *" $number "*) ;; *) groups+=(--group-add "$number") ;; esac
    done
}

gather() {
    say "gather $name's ONNX files and accuracies into $work"
    do_ mkdir -p "$work/$name" "$work/machine"
    do_ cp "$recipe" "$work/$name.toml"
    for mode in $BUILT_MODES; do
        [ -d "$source/$mode" ] || continue
        do_ mkdir -p "$work/$name/$mode"
        for file in $KEPT; do
            [ ! -f "$source/$mode/$file" ] || do_ cp "$source/$mode/$file" "$work/$name/$mode/"
        done
        [ ! -f "$source/$mode/manifest.json" ] || manifest "$source/$mode/manifest.json" "$work/$name/$mode"
    done
}

# The stages that made the ONNX files stay on record; engines of the workstation are none of this device.
manifest() {
    [ "$dry_run" = no ] || { echo "    $1, without its engines, > $2/manifest.json"; return; }
    python3 - "$1" "$2/manifest.json" <<'PYTHON'
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    manifest = json.load(file)
manifest["stages"] = {name: one for name, one in manifest["stages"].items() if not name.startswith("build-")}
with open(sys.argv[2], "w", encoding="utf-8") as file:
    json.dump(manifest, file, indent=2)
PYTHON
}

describe() {
    say "see what this machine has, and that $backend works here"
    trtq_to machine/doctor.json doctor --json
    run_trtq doctor --require "$backend"
}

lock_clocks() {
    if [ "$keep_clocks" = yes ]; then
        say "clocks stay as they are (--keep-clocks)"
    elif ! command -v jetson_clocks >/dev/null; then
        say "no clocks to lock: jetson_clocks is not here, so this is no Jetson, or not its host"
    else
        lock_jetson
        return
    fi
    [ "$dry_run" = yes ] || echo "not locked" >"$work/machine/clocks.txt"
}

lock_jetson() {
    say "store the clocks and the power mode, and lock the clocks"
    # shellcheck disable=SC2086 # empty where this is root already
    do_ $sudo true
    keep_root
    power_mode_to power-mode-before.txt
    clocks_to clocks-before.txt
    if [ -n "$power_mode" ]; then
        [ "$dry_run" = yes ] || old_power_mode=$(tail -n 1 "$work/machine/power-mode-before.txt")
        # Some modes want a reboot, and ask: the answer is no, and nvpmodel fails.
        # shellcheck disable=SC2086
        do_ $sudo nvpmodel -m "$power_mode" </dev/null ||
            fail "nvpmodel does not switch to mode $power_mode without a reboot: switch by hand, reboot, and run this without --power-mode"
    fi
    # shellcheck disable=SC2086
    do_ $sudo jetson_clocks --store "$work/machine/clocks.store"
    locked=yes
    # shellcheck disable=SC2086
    do_ $sudo jetson_clocks
    clocks_to clocks-locked.txt
    if command -v tegrastats >/dev/null; then
        echo "    tegrastats --interval 1000 > machine/tegrastats.log, meanwhile"
        [ "$dry_run" = yes ] || { tegrastats --interval 1000 >"$work/machine/tegrastats.log" 2>&1 & tegrastats=$!; }
    fi
}

# A build takes longer than sudo remembers a password, and restoring must not wait for one.
keep_root() {
    [ -n "$sudo" ] && [ "$dry_run" = no ] || return 0
    (trap 'kill "$!"; wait "$!"; exit' TERM; while sleep 60 & wait "$!"; do sudo -n true; done) >/dev/null 2>&1 &
    keeper=$!
}

clocks_to() {
    echo "    jetson_clocks --show > machine/$1"
    # shellcheck disable=SC2086
    [ "$dry_run" = yes ] || $sudo jetson_clocks --show >"$work/machine/$1"
}

power_mode_to() {
    command -v nvpmodel >/dev/null || return 0
    echo "    nvpmodel -q > machine/$1"
    # shellcheck disable=SC2086
    [ "$dry_run" = yes ] || $sudo nvpmodel -q >"$work/machine/$1"
}

restore_clocks() {
    # A signal now must not end what puts the clocks back; what this starts ignores it as well.
    trap '' INT TERM HUP
    end "$tegrastats"
    tegrastats=""
    if [ "$locked" = yes ]; then
        locked=no
        say "restore the clocks and the power mode"
        # shellcheck disable=SC2086
        do_ $sudo jetson_clocks --restore "$work/machine/clocks.store" || warn "the clocks are still locked: reboot restores them"
        clocks_to clocks-after.txt || true
    fi
    if [ -n "$old_power_mode" ]; then
        # shellcheck disable=SC2086
        do_ $sudo nvpmodel -m "$old_power_mode" </dev/null || warn "the power mode is still $power_mode; it was $old_power_mode"
        old_power_mode=""
    fi
    end "$keeper"
    keeper=""
    listen
}

listen() {
    trap 'stop 130' INT
    trap 'stop 143' TERM
    trap 'stop 129' HUP
}

build_engines() {
    for mode in ${modes//,/ }; do
        say "build the $mode engine with $backend"
        folder=$name/$mode
        onnx=$folder/model.onnx
        # Where the recipe casts what it leaves unquantized, that file is what engines are built of.
        case $mode in ptq | qat) [ ! -f "$source/$mode/model.fp16.onnx" ] || onnx=$folder/model.fp16.onnx ;; esac
        run_trtq build "$onnx" --mode "$mode" --backend "$backend" --output "$folder" "${calibration[@]}"
    done
}

bench() {
    say "time the engines, interleaved"
    case $backend in trt | rtx) bench_options=(--profile "$name/layers" "${bench_options[@]}") ;; esac
    run_trtq bench "$name.toml" --mode "$modes" --backend "$backend" "${bench_options[@]}"
}

# Each engine's layers with their times, where the report and `trtq diff` look for them.
layers() {
    case $backend in
        trt | rtx | trtexec) say "keep the layers with their times" ;;
        *) say "ONNX Runtime's layers are none of TensorRT's: the report shows those that its rules let expect"; return 0 ;;
    esac
    for mode in ${modes//,/ }; do
        if [ "$backend" = trtexec ]; then
            engine=$name/$mode/engine.trtexec.plan
            run_trtexec "--loadEngine=$engine" "--exportLayerInfo=$engine.layers.json" "--exportProfile=$engine.profile.json" \
                --profilingVerbosity=detailed --separateProfileRun --noDataTransfers --useSpinWait
            run_trtq layers "$engine.layers.json" --profile "$engine.profile.json" --output "$name/$mode/layers.json" --json
        else
            do_ mv "$work/$name/layers/$mode.layers.json" "$work/$name/$mode/layers.json"
        fi
    done
    # trtexec has exported them in a run of its own.
    [ "$backend" = trtexec ] || do_ rmdir "$work/$name/layers"
}

differences() {
    case ,$modes, in *,ptq,*) ;; *) return 0 ;; esac
    case ,$modes, in *,qat,*) ;; *) return 0 ;; esac
    say "list what the qat engine does otherwise than the ptq engine"
    suffix=""
    case $backend in ort | ort-native) suffix=/model.onnx ;; esac
    trtq_to "$name/diff-ptq-qat.json" diff "$name/ptq$suffix" "$name/qat$suffix" --json
}

write_report() {
    say "write the report"
    run_trtq report "$name.toml"
}

# Run trtq in the working folder, wherever it is installed. In the background, so that a signal is heard at once.
run_trtq() {
    echo "    ${runner[*]} $*"
    [ "$dry_run" = no ] || return 0
    in_work "$@" </dev/null &
    wait_for_it
}

run_trtexec() {
    programs=("${TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}")
    [ -z "$image" ] || programs=("${runner[@]:0:${#runner[@]}-1}" --entrypoint trtexec "$image")
    echo "    ${programs[*]} $*"
    [ "$dry_run" = no ] || return 0
    (cd "$work" && exec "${programs[@]}" "$@") </dev/null >>"$work/machine/trtexec.log" 2>&1 &
    wait_for_it
}

trtq_to() {
    target=$1
    shift
    echo "    ${runner[*]} $* > $target"
    [ "$dry_run" = no ] || return 0
    in_work "$@" </dev/null >"$work/$target" &
    wait_for_it
}

in_work() {
    cd "$work"
    exec "${runner[@]}" "$@"
}

wait_for_it() {
    child=$!
    wait "$child"
    child=""
}

stop() {
    trap - INT TERM HUP
    end "$child"
    exit "$1"
}

# `wait` in a trap does not return for a child that is gone already while another one is there.
end() {
    [ -n "$1" ] && kill "$1" 2>/dev/null || return 0
    while kill -0 "$1" 2>/dev/null; do sleep 0.1; done
}

finish() {
    code=$?
    trap - EXIT
    # What puts the clocks back goes on, whatever fails before it: where the terminal is gone, every line that is printed.
    set +e
    trap '' PIPE
    [ "$code" != 129 ] || [ ! -d "$work/machine" ] || exec >>"$work/machine/after-hangup.log" 2>&1
    restore_clocks
    trap '' INT TERM HUP
    [ "$code" = 0 ] || [ ! -d "$work" ] || warn "stopped with $code; what is there is in $work"
    exit "$code"
}

do_() {
    echo "    $*"
    [ "$dry_run" = yes ] || "$@"
}

say() {
    step=$((step + 1))
    echo "[$step] $*"
}

warn() {
    echo "compare-on-orin: $*" >&2
}

fail() {
    warn "$*"
    exit 2
}

main "$@"
