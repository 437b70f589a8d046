#!/bin/sh
# Runs the kernel-table and end-to-end tests on a Vulkan device, under the validation layer where it is installed, and
# fails if there is no such device or if the layer reports anything. Usage: vulkan.sh BUILD DEVICE
set -eu
build=$1 device=$2
"$build/quant" devices
line=$("$build/quant" devices --json | tr -d '\n' | sed 's/},/}\n/g' | grep "\"$device\"") || line=
case $line in
*'"reason": null'* | *'"reason":null'*) ;;
*)
    echo "vulkan.sh: $device is not usable here: $line" >&2
    exit 1
    ;;
esac

log=$(mktemp) settings=$(mktemp -d)
trap 'rm -rf "$log" "$settings"' EXIT
cat >"$settings/vk_layer_settings.txt" <<END
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn
khronos_validation.log_filename = $log
END
export VK_LAYER_SETTINGS_PATH="$settings" QUANT_DEVICE="$device"
layer=$(find /usr/share/vulkan /usr/local/share/vulkan "${VULKAN_SDK:-/nowhere}" -name 'VkLayer_khronos_validation.json' 2>/dev/null | head -n 1)
if [ -n "$layer" ]; then
    export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation
    echo "vulkan.sh: with the validation layer $layer"
else
    echo "vulkan.sh: WITHOUT the validation layer (Debian: vulkan-validationlayers)"
fi
"$build/tests/quant_tests" "[kernels],[layout],[vulkan]" --durations yes
if [ -s "$log" ]; then
    echo "vulkan.sh: the validation layer reports:" >&2
    head -n 40 "$log" >&2
    exit 1
fi
echo "vulkan.sh: kernel table and whole models on $device: passed"
