// The devices of this build, chosen at run time.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/memory.h"
#include "core/threads.h"

namespace quant {

struct DeviceInfo {
    std::string name, description, reason;  // reason: why not usable on this machine, or empty
    uint64_t memory_total = 0;
    std::shared_ptr<void> driver;  // what the device was found through: loaded while somebody holds it
};
// Best first; "cpu" itself is an alias of the first usable cpu:*.
std::vector<DeviceInfo> list_devices();

struct DeviceServices {
    ThreadPool* threads;
    const HostMemory* memory;
    bool exact;  // quant_model_options.exact
};
// Null name: the best. Throws Error: UNSUPPORTED (exists, but not on this machine: says why), ARGUMENT (no such name).
std::unique_ptr<Backend> create_backend(const char* name, const DeviceServices& services);
// A device of the list.
std::unique_ptr<Backend> create_backend(const DeviceInfo& device, const DeviceServices& services);

}  // namespace quant
