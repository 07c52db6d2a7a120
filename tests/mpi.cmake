# sw_add_mpi_test(NAME RANKS [EXIT CODE] COMMAND...)
#
# A ctest entry that runs COMMAND by RANKS processes under mpirun, also where there are fewer cores, and expects the
# launcher to return CODE (0). Label mpi; skipped where there is no mpirun.
set(mpi_launch)
if(MPIEXEC_EXECUTABLE)
  set(mpi_launch ${MPIEXEC_EXECUTABLE})
  execute_process(COMMAND ${MPIEXEC_EXECUTABLE} --version OUTPUT_VARIABLE mpiexec_version ERROR_QUIET)
  if(mpiexec_version MATCHES "Open MPI|OpenRTE")
    # Not bound: tests run at the same time and would share their first cores.
    list(APPEND mpi_launch --oversubscribe --bind-to none)
  endif()
endif()

function(sw_add_mpi_test name ranks)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "EXIT" "")
  if(NOT arg_EXIT)
    set(arg_EXIT 0)
  endif()
  if(mpi_launch)
    add_test(NAME ${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/support/expect_exit ${arg_EXIT} ${mpi_launch}
             ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${arg_UNPARSED_ARGUMENTS})
  else()
    add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: needs mpirun")
  endif()
  set_tests_properties(${name} PROPERTIES LABELS mpi TIMEOUT 300 PROCESSORS ${ranks}
                       SKIP_REGULAR_EXPRESSION "skipped: needs mpirun"
                       ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMP_WAIT_POLICY=passive")
endfunction()
