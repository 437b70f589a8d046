// The Vulkan devices of this machine, and a backend on one of them.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backends/registry.h"
#include "backends/vulkan/device.h"

namespace quant {

// Appends "vulkan:0", "vulkan:1", ...; where there is none, "vulkan:0" with the reason.
void append_vulkan_devices(std::vector<DeviceInfo>& list);
std::unique_ptr<Backend> create_vulkan_device(const DeviceInfo& device, const DeviceServices& services);

// By its name, with smaller limits; with kernels that round float activations.
std::unique_ptr<Backend> create_vulkan_backend(const std::string& name, const vulkan::Limits& limits);

}  // namespace quant
