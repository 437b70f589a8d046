// The processor's devices: one for each instruction set that kernels are compiled for, and the reference.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backends/registry.h"

namespace quant {

// Best first; those that this processor cannot run say what it lacks.
void append_cpu_devices(std::vector<DeviceInfo>& list);
std::unique_ptr<Backend> create_cpu_device(const DeviceInfo& device, const DeviceServices& services);
// one_stream: what detect_processor() would say.
std::unique_ptr<Backend> create_cpu_device(const std::string& name, const DeviceServices& services, bool one_stream);

}  // namespace quant
