// The Vulkan devices of this machine, and a backend on one of them.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backends/registry.h"
#include "backends/vulkan/device.h"

namespace quant {

// Appends "vulkan:0", "vulkan:1", ...; where there is none, one line "vulkan" that says why.
void append_vulkan_devices(std::vector<DeviceInfo>& list);

// name: one of those, or "vulkan" for the first usable one. Throws Error as create_backend does; null: no such name.
std::unique_ptr<Backend> create_vulkan_backend(const std::string& name, const vulkan::Limits& limits = {});

}  // namespace quant
