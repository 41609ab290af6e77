# cmake --install: everything lies relative to the prefix, so the tree may be moved. The program has the library in it.
# Libraries of others: the loader's business, or with -DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON where they were at the build.
include(CMakePackageConfigHelpers)
set(packages ${CMAKE_CURRENT_LIST_DIR})
set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/curvd)

install(TARGETS curvd RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# two files of targets: who has no OpenBLAS to link with may still use the shared library
foreach(kind shared static)
  install(TARGETS curvd_${kind} EXPORT curvd_${kind} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT curvd_${kind} NAMESPACE curvd:: FILE curvd-${kind}.cmake DESTINATION ${cmake_folder})
endforeach()
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# for PYTHONPATH: finds the library of its own prefix
install(FILES src/python/curvd.py src/python/curvd_torch.py DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/curvd/python)

# below 1.0 every minor version may change the interface
write_basic_package_version_file(${CMAKE_BINARY_DIR}/curvd-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${packages}/curvd-config.cmake ${packages}/curvd-dependencies.cmake
              ${CMAKE_BINARY_DIR}/curvd-config-version.cmake DESTINATION ${cmake_folder})

file(RELATIVE_PATH pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" pc_to_prefix ${pc_to_prefix})
get_filename_component(scalapack_name "${SCALAPACK_LIBRARY}" NAME_WE)
string(REGEX REPLACE "^lib" "" scalapack_name "${scalapack_name}")
configure_file(${packages}/curvd.pc.in ${CMAKE_BINARY_DIR}/curvd.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/curvd.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# batch scripts, the start over hosts, and Open MPI's settings for both
set(scripts_folder ${CMAKE_INSTALL_DATAROOTDIR}/curvd/launch)
install(PROGRAMS launch/hosts DESTINATION ${scripts_folder})
install(FILES launch/setup.sh launch/mpi.sh launch/openmpi.conf DESTINATION ${scripts_folder})
install(DIRECTORY launch/slurm DESTINATION ${scripts_folder} USE_SOURCE_PERMISSIONS)

# module files, for Tcl's modules and for Lmod
set(modules_folder ${CMAKE_INSTALL_DATAROOTDIR}/modulefiles/curvd)
file(RELATIVE_PATH modules_to_prefix ${CMAKE_INSTALL_FULL_DATAROOTDIR}/modulefiles/curvd ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" modules_to_prefix ${modules_to_prefix})
foreach(kind tcl lua)
  configure_file(${packages}/modules/curvd.${kind}.in ${CMAKE_BINARY_DIR}/curvd.${kind} @ONLY)
endforeach()
install(FILES ${CMAKE_BINARY_DIR}/curvd.tcl DESTINATION ${modules_folder} RENAME ${PROJECT_VERSION})
install(FILES ${CMAKE_BINARY_DIR}/curvd.lua DESTINATION ${modules_folder} RENAME ${PROJECT_VERSION}.lua)

# what the option table says, for man and for shells: the program itself writes it
if(NOT CMAKE_CROSSCOMPILING)
  set(manuals)
  foreach(row "man man/man1 curvd.1" "bash bash-completion/completions curvd" "zsh zsh/site-functions _curvd"
              "markdown doc/curvd options.md")
    separate_arguments(row)
    list(GET row 0 format)
    list(GET row 1 folder)
    list(GET row 2 name)
    set(manual ${CMAKE_BINARY_DIR}/manual/${folder}/${name})
    add_custom_command(OUTPUT ${manual} DEPENDS curvd VERBATIM
                       COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/manual/${folder}
                       COMMAND ${CMAKE_COMMAND} -E env ASAN_OPTIONS=detect_leaks=0 $<TARGET_FILE:curvd>
                               options --format ${format} > ${manual})
    list(APPEND manuals ${manual})
    install(FILES ${manual} DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/${folder})
  endforeach()
  add_custom_target(manual ALL DEPENDS ${manuals})
endif()
