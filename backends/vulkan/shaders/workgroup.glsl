// Sums and maxima over a workgroup of any subgroup size.
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require

shared float float_parts[gl_WorkGroupSize.x];
shared uint uint_parts[gl_WorkGroupSize.x];

float workgroup_sum(float x) {
    float part = subgroupAdd(x);
    if (subgroupElect()) float_parts[gl_SubgroupID] = part;
    barrier();
    float sum = 0.0;
    for (uint i = 0u; i < gl_NumSubgroups; ++i) sum += float_parts[i];
    barrier();
    return sum;
}
int workgroup_sum(int x) {
    int part = subgroupAdd(x);
    if (subgroupElect()) uint_parts[gl_SubgroupID] = uint(part);
    barrier();
    int sum = 0;
    for (uint i = 0u; i < gl_NumSubgroups; ++i) sum += int(uint_parts[i]);
    barrier();
    return sum;
}
uint workgroup_max(uint x) {
    uint part = subgroupMax(x);
    if (subgroupElect()) uint_parts[gl_SubgroupID] = part;
    barrier();
    uint largest = 0u;
    for (uint i = 0u; i < gl_NumSubgroups; ++i) largest = max(largest, uint_parts[i]);
    barrier();
    return largest;
}
