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
        if (d.has_matrices()) {
            vulkan::Limits limits;
            limits.matrices = false;
            variants.push_back(std::make_unique<TestedDevice>(name + " without matrices", "linear",
                                                              create_vulkan_backend(name, limits)));
        }
        if (d.integer_dot) {
            vulkan::Limits limits;
            limits.integer_dot = d.integer_dot_accelerated ? vulkan::Limits::Use::never : vulkan::Limits::Use::always;
            variants.push_back(std::make_unique<TestedDevice>(
                name + (d.integer_dot_accelerated ? " without integer dot" : " with integer dot"), "int8",
                create_vulkan_backend(name, limits)));
        }
    }
    return variants;
}
#else
std::vector<std::unique_ptr<TestedDevice>> vulkan_variants(const std::string&) {
    return {};
}
#endif

}  // namespace quant
