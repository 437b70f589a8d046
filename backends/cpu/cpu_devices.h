// The processor's devices: one for each instruction set that kernels are compiled for, and the reference.
#pragma once
#include <memory>
#include <vector>

#include "backends/registry.h"

namespace quant {

// Best first; those that this processor cannot run say what it lacks.
void append_cpu_devices(std::vector<DeviceInfo>& list);
std::unique_ptr<Backend> create_cpu_device(const DeviceInfo& device, const DeviceServices& services);

}  // namespace quant
