#include "backends/registry.h"

#include "backends/cpu/cpu_devices.h"
#include "formats/error.h"
#ifdef QUANT_WITH_CUDA
#include "backends/cuda/cuda_backend.h"
#endif
#ifdef QUANT_VULKAN
#include "backends/vulkan/vulkan_backend.h"
#endif

namespace quant {
namespace {

// A kind of device, named NAME:something: what there is of it, usable or not, best first, and how one is made.
struct Family {
    const char* name;
    void (*append)(std::vector<DeviceInfo>& list);
    std::unique_ptr<Backend> (*create)(const DeviceInfo& device, const DeviceServices& services);
};
const Family families[] = {
    {"cpu", append_cpu_devices, create_cpu_device},
#ifdef QUANT_WITH_CUDA
    {"cuda", cuda::append_devices, cuda::create_device},
#endif
#ifdef QUANT_VULKAN
    {"vulkan", append_vulkan_devices, create_vulkan_device},
#endif
};

std::string family_of(const std::string& name) {
    return name.substr(0, name.find(':'));
}

}  // namespace

std::vector<DeviceInfo> list_devices() {
    std::vector<DeviceInfo> list;
    for (const Family& family : families) family.append(list);
    return list;
}

std::unique_ptr<Backend> create_backend(const char* name, const DeviceServices& services) {
    const std::string wanted = name ? name : "cpu";
    const std::string family_name = family_of(wanted);
    for (const Family& family : families) {
        if (family_name != family.name) continue;
        std::vector<DeviceInfo> list;
        family.append(list);
        const DeviceInfo* unusable = nullptr;  // the first
        for (const DeviceInfo& device : list) {
            if (wanted != family_name && wanted != device.name) continue;
            if (device.reason.empty()) return family.create(device, services);
            if (!unusable) unusable = &device;
        }
        if (unusable) return create_backend(*unusable, services);  // says why not
    }
    std::string known;
    for (const Family& family : families) known += (known.empty() ? "" : ", ") + std::string(family.name);
    for (const DeviceInfo& device : list_devices()) known += ", " + device.name;
    fail(QUANT_ERR_ARGUMENT, "no device is called \"" + wanted + "\": there are " + known);
}

std::unique_ptr<Backend> create_backend(const DeviceInfo& device, const DeviceServices& services) {
    if (!device.reason.empty())
        fail(QUANT_ERR_UNSUPPORTED, "device " + device.name + " is not usable: " + device.reason);
    const std::string name = family_of(device.name);
    for (const Family& family : families)
        if (name == family.name) return family.create(device, services);
    fail(QUANT_ERR_ARGUMENT, "no device is called \"" + device.name + "\"");
}

}  // namespace quant
