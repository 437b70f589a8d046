// The CUDA devices: buffers are device memory, a plan is a CUDA graph replayed for every step.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backends/registry.h"

namespace quant {
namespace cuda {

// "cuda:0", ... Without a driver or a device: one entry, "cuda:0", that says why.
void append_devices(std::vector<DeviceInfo>& list);
std::unique_ptr<Backend> create_device(const DeviceInfo& device, const DeviceServices& services);

}  // namespace cuda
}  // namespace quant
