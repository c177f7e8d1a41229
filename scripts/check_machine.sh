#!/usr/bin/env bash
# Ends with 2 and one line on a machine for which TensorFlow has no build, before anything is downloaded.
set -euo pipefail
extras=${1-}

refuse() {
    echo "setup: this is $1; takes Linux on x86-64 or Arm (64 bit, glibc 2.28 or newer), macOS 12 or newer on Apple" \
        "silicon, or Windows through WSL, for which TensorFlow is built" >&2
    exit 2
}

system=$(uname -s) processor=$(uname -m)
case $system in
    Linux)
        libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc="another C library than glibc, such as musl"
        case $processor in
            x86_64 | aarch64) ;;
            *) refuse "Linux on $processor" ;;
        esac
        [[ $(getconf LONG_BIT) == 64 ]] || refuse "a 32-bit Linux on $processor"
        [[ $libc == glibc\ * ]] || refuse "Linux with $libc"
        minor=${libc#glibc 2.}
        [[ ${minor%%.*} -ge 28 ]] || refuse "Linux with $libc"
        ;;
    Darwin)
        if [[ $(sysctl -n sysctl.proc_translated 2>/dev/null) == 1 ]]; then
            refuse "a terminal under Rosetta (\`arch -arm64 bash\` is none)"
        fi
        [[ $processor == arm64 ]] || refuse "macOS on $processor"
        version=$(sw_vers -productVersion)
        [[ ${version%%.*} -ge 12 ]] || refuse "macOS $version"
        if [[ ,$extras, == *,gpu,* ]]; then
            echo "setup: EXTRAS=$extras: gpu is TensorFlow's CUDA build, which there is for Linux only" >&2
            exit 2
        fi
        ;;
    MINGW* | MSYS* | CYGWIN* | Windows*) refuse "Windows without WSL" ;;
    *) refuse "$system on $processor" ;;
esac
