#include "tests/kernel_rig.h"

#ifdef QUANT_VULKAN
#include "backends/vulkan/vulkan_backend.h"
#endif

namespace quant {

#ifdef QUANT_VULKAN
std::vector<std::unique_ptr<TestedDevice>> vulkan_variants(const std::string& name) {
    std::vector<std::unique_ptr<TestedDevice>> variants;
    std::string reason;
    const auto instance = vulkan::Instance::open(&reason);
    if (!instance) return variants;
    for (const vulkan::PhysicalDevice& d : vulkan::physical_devices(*instance)) {
        if (d.name != name || !d.reason.empty()) continue;
        if (!d.integer_dot && !d.has_matrices()) continue;
        // The shaders that the device itself does not choose, all in one: every device compiles its shaders anew.
        vulkan::Limits limits;
        limits.matrices = false;
        limits.integer_dot = d.integer_dot_accelerated ? vulkan::Limits::Use::never : vulkan::Limits::Use::always;
        variants.push_back(std::make_unique<TestedDevice>(
            name + (d.integer_dot_accelerated ? ", plain shaders" : ", with integer dot"),
            d.has_matrices() ? "linear" : "int8", create_vulkan_backend(name, limits)));
    }
    return variants;
}
#else
std::vector<std::unique_ptr<TestedDevice>> vulkan_variants(const std::string&) {
    return {};
}
#endif

}  // namespace quant
