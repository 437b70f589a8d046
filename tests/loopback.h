// A second device for tests: its memory is its own and poisoned, and a worker thread runs what was recorded later. It
// catches whoever assumes that buffers are host memory, that `run` has finished when it returns, or that a Step may
// change while it runs. The arithmetic is the CPU's reference kernels'.
#pragma once
#include <memory>
#include <string>

#include "backends/registry.h"
#include "core/backend.h"

namespace quant {

// name: "loopback:0". `services` must outlive the device.
std::unique_ptr<Backend> create_loopback(const std::string& name, const DeviceServices& services);

// The next thing that this device does fails with `message`; wait() throws it as QUANT_ERR_DEVICE.
void loopback_fail_next(Backend& loopback, const std::string& message);

}  // namespace quant
