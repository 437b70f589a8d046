# A Raspberry Pi with a 64-bit system: sysroot.cmake, with what is not chosen at run time tuned for one board,
# -DQUANT_PI=3, 4 or 5.
if(NOT QUANT_PI)
  set(QUANT_PI 4)
endif()
set(QUANT_PI_3 cortex-a53)
set(QUANT_PI_4 cortex-a72)
set(QUANT_PI_5 cortex-a76)
if(NOT QUANT_PI_${QUANT_PI})
  message(FATAL_ERROR "-DQUANT_PI is 3, 4 or 5, not \"${QUANT_PI}\"")
endif()
include(${CMAKE_CURRENT_LIST_DIR}/sysroot.cmake)
set(CMAKE_C_FLAGS_INIT -mtune=${QUANT_PI_${QUANT_PI}})
set(CMAKE_CXX_FLAGS_INIT -mtune=${QUANT_PI_${QUANT_PI}})
