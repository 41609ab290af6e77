# find_package(curvd 0.1): curvd::curvd, the shared library, and curvd::curvd_static, where OpenBLAS and ScaLAPACK are
# there. COMPONENTS shared static asks for one of them, or both. With Fortran enabled curvd::fortran is there, too: the
# shared library and the source of its module, which is compiled with the target that links it.
cmake_policy(VERSION 3.22)
include("${CMAKE_CURRENT_LIST_DIR}/curvd-dependencies.cmake")
set(curvd_shared_FOUND FALSE)
set(curvd_static_FOUND FALSE)
set(curvd_FOUND TRUE)

if(TARGET curvd::mpi)
  include("${CMAKE_CURRENT_LIST_DIR}/curvd-shared.cmake")
  set(curvd_shared_FOUND TRUE)
  get_property(curvd_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if("Fortran" IN_LIST curvd_languages AND NOT TARGET curvd::fortran)
    get_target_property(curvd_include curvd::curvd INTERFACE_INCLUDE_DIRECTORIES)
    add_library(curvd::fortran INTERFACE IMPORTED)
    set_target_properties(curvd::fortran PROPERTIES INTERFACE_LINK_LIBRARIES curvd::curvd
                          INTERFACE_SOURCES "${curvd_include}/curvd.f90")
  endif()
  if(TARGET curvd::openblas AND TARGET curvd::scalapack AND TARGET Threads::Threads)
    include("${CMAKE_CURRENT_LIST_DIR}/curvd-static.cmake")
    set(curvd_static_FOUND TRUE)
  endif()
else()
  set(curvd_FOUND FALSE)
  string(CONCAT curvd_NOT_FOUND_MESSAGE "no MPI was found for the languages of this project: enable C, CXX or Fortran, "
                                        "and have the compiler wrappers (mpicc) of the MPI of curvd on the PATH")
endif()

foreach(curvd_component IN LISTS curvd_FIND_COMPONENTS)
  if(curvd_FOUND AND curvd_FIND_REQUIRED_${curvd_component} AND NOT curvd_${curvd_component}_FOUND)
    set(curvd_FOUND FALSE)
    if(curvd_component STREQUAL "static")
      set(curvd_NOT_FOUND_MESSAGE "the static library needs OpenBLAS (openblas.pc), ScaLAPACK, and C or CXX enabled")
    else()
      set(curvd_NOT_FOUND_MESSAGE "curvd has the components shared and static, not ${curvd_component}")
    endif()
  endif()
endforeach()
